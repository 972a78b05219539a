//! Parquet: flat columns in row groups that end with each part.
//!
//! A row group is written into memory as a file of its own. Its columns are appended to the unfinished file, and its
//! metadata is kept, with the offsets moved, until the footer is written at the end. The journal has the same metadata,
//! so an export that goes on writes the same footer.

use std::io::{self, Write as _};
use std::str;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

use super::error::EncodeError;
use crate::cli::export::columns::{Cell, Column, ColumnKind, Columns};
use crate::cli::export::partial_file::PartialFile;
use crate::hex;

/// The text at the beginning and at the end of a file.
const MAGIC: &[u8] = b"PAR1";
/// Length of what follows the footer: its length, and the magic.
const FOOTER_END_BYTES: usize = 8;
/// The most rows of a row group.
const ROW_GROUP_ROWS: usize = 10_000;
/// The bytes of items from which on a row group ends.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Writes items as rows of Parquet.
pub(in crate::cli::export) struct ParquetEncoder {
    columns: Columns,
    schema: TypePtr,
    properties: Arc<WriterProperties>,
    /// The metadata of a file without rows.
    template: FileMetaData,
    /// The row group under way, column by column.
    values: Vec<ColumnValues>,
    /// The number of its rows, and of the bytes of their items.
    size: (usize, usize),
    /// The metadata of all row groups before the part under way.
    finished: Vec<Vec<u8>>,
    /// The metadata of the row groups of the part under way.
    of_part: Vec<Vec<u8>>,
}

/// The values of one column in the row group under way.
#[derive(Default)]
struct ColumnValues {
    /// For each row 1, or 0 if it has no value.
    definition_levels: Vec<i16>,
    texts: Vec<ByteArray>,
    numbers: Vec<i64>,
    floats: Vec<f64>,
    booleans: Vec<bool>,
}

impl ParquetEncoder {
    /// # Errors
    /// If the columns are no schema.
    pub(super) fn new(columns: Columns) -> Result<Self, ParquetError> {
        let fields = columns.list().iter().map(field).collect::<Result<_, _>>()?;
        let schema = Arc::new(Type::group_type_builder("item").with_fields(fields).build()?);
        let properties = WriterProperties::builder()
            .set_created_by(format!("koregate {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let properties = Arc::new(properties);
        let empty = SerializedFileWriter::new(Vec::new(), schema.clone(), properties.clone())?.close()?;
        let template = empty.file_metadata().clone();
        let values = columns.list().iter().map(|_| ColumnValues::default()).collect();
        let (finished, of_part) = Default::default();
        Ok(Self { columns, schema, properties, template, values, size: (0, 0), finished, of_part })
    }

    pub(super) fn restore(&mut self, row_groups: &[String]) -> io::Result<()> {
        let damaged = || io::Error::other("the journal has a damaged row group");
        self.finished =
            row_groups.iter().map(|digits| hex::decode_all(digits)).collect::<Option<_>>().ok_or_else(damaged)?;
        self.read_row_groups().map(|_| ())
    }

    pub(super) fn push(&mut self, item: &[u8], file: &mut PartialFile) -> Result<(), EncodeError> {
        let text = str::from_utf8(item).map_err(|_| EncodeError::NotUtf8)?;
        for (values, cell) in self.values.iter_mut().zip(self.columns.cells(text)?) {
            values.push(cell);
        }
        self.size = (self.size.0 + 1, self.size.1 + item.len());
        if self.size.0 >= ROW_GROUP_ROWS || self.size.1 >= ROW_GROUP_BYTES {
            self.end_row_group(file)?;
        }
        Ok(())
    }

    pub(super) fn end_part(&mut self, file: &mut PartialFile) -> io::Result<Vec<String>> {
        if file.bytes() == 0 {
            file.write_all(MAGIC)?;
        }
        self.end_row_group(file)?;
        let of_part = std::mem::take(&mut self.of_part);
        let digits = of_part.iter().map(|metadata| hex::encode(metadata)).collect();
        self.finished.extend(of_part);
        Ok(digits)
    }

    pub(super) fn discard_part(&mut self) {
        self.of_part.clear();
        self.discard_rows();
    }

    pub(super) fn finish(&mut self, rows: u64, file: &mut PartialFile) -> io::Result<()> {
        if file.bytes() == 0 {
            file.write_all(MAGIC)?;
        }
        // The metadata as it is read, so that a row group from the journal is written like any other.
        let row_groups = self.read_row_groups()?;
        let row_groups = row_groups.iter().flat_map(ParquetMetaData::row_groups).zip(0..);
        let row_groups = row_groups.map(|(group, ordinal)| group.clone().into_builder().set_ordinal(ordinal).build());
        file.write_all(&footer(&self.file_metadata(rows), row_groups.collect::<Result<_, _>>()?)?)
    }

    /// Appends the rows that were pushed, as a row group.
    fn end_row_group(&mut self, file: &mut PartialFile) -> io::Result<()> {
        if self.size.0 == 0 {
            return Ok(());
        }
        if file.bytes() == 0 {
            file.write_all(MAGIC)?;
        }
        let (bytes, metadata) = self.row_group()?;
        let moved_by = i64::try_from(file.bytes()).unwrap_or(i64::MAX) - i64::try_from(MAGIC.len()).unwrap_or(0);
        let columns = metadata.columns().iter().map(|column| moved(column, moved_by)).collect::<Result<_, _>>()?;
        let offset = metadata.file_offset().unwrap_or_default() + moved_by;
        let metadata = metadata.into_builder().set_column_metadata(columns).set_file_offset(offset).build()?;
        file.write_all(&bytes)?;
        let rows = self.size.0 as u64;
        let footer = footer(&self.file_metadata(rows), vec![metadata])?;
        self.of_part.push(footer[..footer.len() - FOOTER_END_BYTES].to_vec());
        self.discard_rows();
        Ok(())
    }

    /// The row group that was pushed: the bytes of its columns, and its metadata as if they stood behind the magic.
    fn row_group(&self) -> Result<(Vec<u8>, RowGroupMetaData), ParquetError> {
        let mut writer = SerializedFileWriter::new(Vec::new(), self.schema.clone(), self.properties.clone())?;
        let mut row_group = writer.next_row_group()?;
        for values in &self.values {
            let Some(mut column) = row_group.next_column()? else { break };
            values.write(column.untyped())?;
            column.close()?;
        }
        row_group.close()?;
        writer.flush()?;
        let metadata = writer.flushed_row_groups().first().cloned();
        let bytes = writer.inner().get(MAGIC.len()..).unwrap_or_default().to_vec();
        let metadata = metadata.ok_or_else(|| ParquetError::General("no row group was written".to_owned()))?;
        Ok((bytes, metadata))
    }

    fn discard_rows(&mut self) {
        self.size = (0, 0);
        for values in &mut self.values {
            *values = ColumnValues::default();
        }
    }

    fn read_row_groups(&self) -> io::Result<Vec<ParquetMetaData>> {
        let read = |metadata: &Vec<u8>| ParquetMetaDataReader::decode_metadata(metadata);
        Ok(self.finished.iter().map(read).collect::<Result<_, _>>()?)
    }

    fn file_metadata(&self, rows: u64) -> FileMetaData {
        let (file, rows) = (&self.template, i64::try_from(rows).unwrap_or(i64::MAX));
        let (created_by, orders) = (file.created_by().map(ToOwned::to_owned), file.column_orders().cloned());
        FileMetaData::new(file.version(), rows, created_by, None, file.schema_descr_ptr(), orders)
    }
}

impl ColumnValues {
    fn push(&mut self, cell: Cell<'_>) {
        self.definition_levels.push(i16::from(cell != Cell::Null));
        match cell {
            Cell::Null => {}
            Cell::Text(text) => self.texts.push(ByteArray::from(text.into_owned().into_bytes())),
            Cell::Int(number) | Cell::Micros(number) => self.numbers.push(number),
            Cell::Float(number) => self.floats.push(number),
            Cell::Bool(value) => self.booleans.push(value),
        }
    }

    fn write(&self, column: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = Some(self.definition_levels.as_slice());
        match column {
            ColumnWriter::ByteArrayColumnWriter(writer) => writer.write_batch(&self.texts, levels, None)?,
            ColumnWriter::Int64ColumnWriter(writer) => writer.write_batch(&self.numbers, levels, None)?,
            ColumnWriter::DoubleColumnWriter(writer) => writer.write_batch(&self.floats, levels, None)?,
            ColumnWriter::BoolColumnWriter(writer) => writer.write_batch(&self.booleans, levels, None)?,
            _ => return Err(ParquetError::General("no column has this type".to_owned())),
        };
        Ok(())
    }
}

/// The field of a column.
fn field(column: &Column) -> Result<TypePtr, ParquetError> {
    let (physical, logical) = match column.kind {
        ColumnKind::Text => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
        ColumnKind::Json => (PhysicalType::BYTE_ARRAY, Some(LogicalType::Json)),
        ColumnKind::Int => (PhysicalType::INT64, None),
        ColumnKind::Float => (PhysicalType::DOUBLE, None),
        ColumnKind::Bool => (PhysicalType::BOOLEAN, None),
        ColumnKind::Timestamp => (PhysicalType::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
    };
    let field = Type::primitive_type_builder(&column.name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()?;
    Ok(Arc::new(field))
}

/// The metadata of a column whose bytes stand `by` bytes further back in the file.
fn moved(column: &ColumnChunkMetaData, by: i64) -> Result<ColumnChunkMetaData, ParquetError> {
    let dictionary = column.dictionary_page_offset().map(|offset| offset + by);
    let data = column.data_page_offset() + by;
    column.clone().into_builder().set_dictionary_page_offset(dictionary).set_data_page_offset(data).build()
}

/// The footer of a file with these row groups, with its length and the magic.
fn footer(file: &FileMetaData, row_groups: Vec<RowGroupMetaData>) -> Result<Vec<u8>, ParquetError> {
    let metadata = ParquetMetaData::new(file.clone(), row_groups);
    let mut bytes = Vec::new();
    ParquetMetaDataWriter::new(&mut bytes, &metadata).finish()?;
    Ok(bytes)
}
