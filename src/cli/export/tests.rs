//! Tests of the writer: whatever an export is killed in, and however often, its file is that of an uninterrupted one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::columns::{Column, ColumnKind};
use super::destination::{Compression, Destination, FileFormat};
use super::journal::tests::parameters;
use super::manifest::Manifest;
use super::parameters::Parameters;
use super::writer::{ExportWriter, Start, start};
use crate::cli::span::{Failure, Source};

/// The items of each part.
type Parts = Vec<Vec<String>>;

/// An export in a directory of its own.
struct Export {
    directory: TempDir,
    destination: Destination,
    parameters: Parameters,
    source: Option<Source>,
}

impl Export {
    fn new(ending: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let destination = Destination::parse(&directory.path().join(format!("a.{ending}"))).unwrap();
        let mut parameters = parameters(destination.format, destination.compression);
        if matches!(destination.format, FileFormat::Csv | FileFormat::Parquet) {
            let with_kind = |path: &str, kind| Column { kind, ..Column::at(path) };
            parameters.columns =
                Some(vec![with_kind("n", ColumnKind::Int), with_kind("s", ColumnKind::Text), Column::at("*")]);
        }
        Self { directory, destination, parameters, source: None }
    }

    fn try_open(&self, force: bool) -> Result<ExportWriter, Failure> {
        match start(&self.destination, &self.parameters, force)? {
            Start::Open(locked) => {
                let locked = locked.of_source(self.source.as_ref(), &self.destination, force)?;
                locked.open(&self.destination, &self.parameters, (self.source.clone(), None), force)
            }
            Start::Done(_) => Err(Failure::failed("done")),
        }
    }

    fn open(&self) -> ExportWriter {
        self.try_open(false).unwrap()
    }

    /// Writes what is missing.
    fn write(&self, mut writer: ExportWriter, parts: &Parts) -> (Vec<u8>, Manifest) {
        for (index, items) in parts.iter().enumerate().skip(writer.parts()) {
            write_part(&mut writer, index, items);
        }
        let manifest = writer.finish().unwrap();
        assert!(!self.destination.journal().exists() && !self.destination.partial().exists());
        assert_eq!(Manifest::read(&self.destination.manifest()).as_ref(), Some(&manifest));
        (fs::read(&self.destination.path).unwrap(), manifest)
    }
}

fn day(index: usize) -> String {
    format!("2026-02-{:02}", index + 1)
}

fn lines(items: &[String]) -> Vec<u8> {
    items.iter().flat_map(|item| [item.as_bytes(), b"\n"]).collect::<Vec<_>>().concat()
}

/// Writes a part in pieces, as they come from the network.
fn write_part(writer: &mut ExportWriter, index: usize, items: &[String]) {
    for piece in lines(items).chunks(7) {
        writer.push(piece).unwrap();
    }
    assert_eq!(writer.end_part(&day(index)).unwrap(), items.len() as u64);
}

/// The bytes and the manifest of an uninterrupted export.
fn uninterrupted(ending: &str, parts: &Parts) -> (Vec<u8>, Manifest) {
    let export = Export::new(ending);
    export.write(export.open(), parts)
}

fn items(count: usize, first: usize) -> Vec<String> {
    let item = |n| format!(r#"{{"s":"a,\"b\" {n}","n":{n},"more":[{n}, null]}}"#);
    (first..first + count).map(item).collect()
}

fn parts() -> impl Strategy<Value = Parts> {
    prop::collection::vec(0usize..5, 1..6).prop_map(|counts| {
        let starts = counts.iter().scan(0, |sum, count| Some(std::mem::replace(sum, *sum + count)));
        counts.iter().zip(starts).map(|(count, first)| items(*count, first)).collect()
    })
}

const ENDINGS: [&str; 8] =
    ["ndjson", "json", "csv", "ndjson.gz", "json.zst", "csv.gz", "ndjson.zst", PARQUET_OR_ANOTHER];
#[cfg(feature = "parquet")]
const PARQUET_OR_ANOTHER: &str = "parquet";
#[cfg(not(feature = "parquet"))]
const PARQUET_OR_ANOTHER: &str = "json.gz";

/// Cuts `path` by up to `bytes`, but not below `least`.
fn cut(path: &Path, bytes: u64, least: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(bytes).max(least)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Killed after any number of parts, with any part of the next one written and any part of its line in the journal.
    #[test]
    fn killed_export_goes_on_to_the_same_bytes(
        parts in parts(), ending in prop::sample::select(&ENDINGS[..]), kills in prop::collection::vec((0usize..5, 0usize..80, 0u64..400), 0..4)
    ) {
        let expected = uninterrupted(ending, &parts);
        let export = Export::new(ending);
        for (more, pushed, lost) in kills {
            let mut writer = export.open();
            let until = (writer.parts() + more).min(parts.len());
            for (index, items) in parts.iter().enumerate().take(until).skip(writer.parts()) {
                write_part(&mut writer, index, items);
            }
            let next = parts.get(until).map(|items| lines(items)).unwrap_or_default();
            writer.push(&next[..pushed.min(next.len())]).unwrap();
            drop(writer);
            // The first line of the journal is written as a whole.
            let header = fs::read_to_string(export.destination.journal()).unwrap().find('\n').unwrap() as u64 + 1;
            cut(&export.destination.journal(), lost, header);
            fs::OpenOptions::new().append(true).open(export.destination.partial()).unwrap().write_all(b"torn").unwrap();
        }
        prop_assert_eq!(export.write(export.open(), &parts), expected);
    }

    /// An answer that breaks off is asked for again, and its part is written once.
    #[test]
    fn part_that_is_discarded_leaves_no_trace(parts in parts(), ending in prop::sample::select(&ENDINGS[..]), pushed in 0usize..80) {
        let export = Export::new(ending);
        let mut writer = export.open();
        let first = lines(&parts[0]);
        writer.push(&first[..pushed.min(first.len())]).unwrap();
        writer.discard_part().unwrap();
        prop_assert_eq!(export.write(writer, &parts), uninterrupted(ending, &parts));
    }
}

fn inflate(bytes: &[u8], compression: Compression) -> String {
    let mut text = String::new();
    match compression {
        Compression::None => text = String::from_utf8(bytes.to_vec()).unwrap(),
        Compression::Gzip => _ = flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap(),
        Compression::Zstd => _ = zstd::Decoder::new(bytes).unwrap().read_to_string(&mut text).unwrap(),
    }
    text
}

#[test]
fn text_formats_have_all_items_in_order() {
    let parts = vec![items(2, 0), Vec::new(), items(1, 2)];
    let all = parts.concat();
    let ndjson = lines(&all);
    let json = format!("{{\"data\":[\n{}\n],\"numResults\":3,\"hasMore\":false}}\n", all.join(",\n"));
    let row = |n| format!("{n},\"a,\"\"b\"\" {n}\",\"{{\"\"more\"\":[{n}, null]}}\"\r\n");
    let csv = format!("n,s,_other\r\n{}{}{}", row(0), row(1), row(2));
    for (ending, expected) in [("ndjson", str::from_utf8(&ndjson).unwrap()), ("json", &json), ("csv", &csv)] {
        for compressed in ["", ".gz", ".zst"] {
            let ending = format!("{ending}{compressed}");
            let (bytes, manifest) = uninterrupted(&ending, &parts);
            assert_eq!(inflate(&bytes, manifest.parameters.compression), expected, "{ending}");
            assert_eq!((manifest.rows, manifest.bytes), (3, bytes.len() as u64));
            let days: Vec<_> = manifest.days.values().copied().collect();
            assert_eq!(days, [2, 0, 1]);
        }
    }
}

#[test]
fn export_without_items_is_a_valid_file() {
    for (ending, expected) in [
        ("ndjson.gz", ""),
        ("ndjson.zst", ""),
        ("csv.gz", "n,s,_other\r\n"),
        ("json", "{\"data\":[\n],\"numResults\":0,\"hasMore\":false}\n"),
    ] {
        let (bytes, manifest) = uninterrupted(ending, &vec![Vec::new()]);
        assert_eq!(inflate(&bytes, manifest.parameters.compression), expected, "{ending}");
    }
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_has_a_row_group_for_each_part_with_items() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::RowAccessor as _;

    let mut parts = vec![items(2, 0), Vec::new(), items(1, 2)];
    parts[2].push(r#"{"n":"many","s":null}"#.to_owned());
    let (bytes, _) = uninterrupted("parquet", &parts);
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let rows: Vec<i64> =
        reader.metadata().row_groups().iter().map(parquet::file::metadata::RowGroupMetaData::num_rows).collect();
    assert_eq!(rows, [2, 2]);
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    for (n, row) in (0..3).zip(&rows) {
        assert_eq!(
            (row.get_long(0).unwrap(), row.get_string(1).unwrap().as_str()),
            (n, format!("a,\"b\" {n}").as_str())
        );
        assert_eq!(*row.get_string(2).unwrap(), format!(r#"{{"more":[{n}, null]}}"#));
    }
    assert_eq!(rows[3].to_string(), r#"{n: null, s: null, _other: "{"n":"many"}"}"#);
    assert_eq!(reader.metadata().row_group(1).ordinal(), Some(1));
}

#[test]
fn export_is_refused_beside_another_file_or_export() {
    let parts = vec![items(2, 0)];
    let mut export = Export::new("ndjson");
    let refused = |export: &Export| matches!(export.try_open(false), Err(Failure::Usage(_)));
    // Another export writes it.
    let writer = export.open();
    assert!(refused(&export));
    // An unfinished one has other parameters.
    drop(writer);
    export.parameters.agentic = true;
    assert!(refused(&export));
    // A finished one has other parameters, or was changed.
    export.parameters.agentic = false;
    let (bytes, _) = export.write(export.open(), &parts);
    assert!(matches!(start(&export.destination, &export.parameters, false).unwrap(), Start::Done(_)));
    export.parameters.agentic = true;
    assert!(refused(&export));
    export.parameters.agentic = false;
    fs::write(&export.destination.path, b"something else").unwrap();
    assert!(refused(&export));
    assert!(!export.destination.partial().exists(), "nothing is left");
    assert_eq!(export.write(export.try_open(true).unwrap(), &parts).0, bytes, "--force replaces it");
}

#[test]
fn export_goes_on_with_items_of_one_source_only() {
    let (parts, mut export) = (vec![items(2, 0), items(1, 2)], Export::new("ndjson"));
    let source = |field: &str| {
        let text = |text: &str| text.to_owned();
        Some(Source { account_id: text("a"), field: text(field), upper_bound: text("inclusive") })
    };
    export.source = source("segmentStartTime");
    write_part(&mut export.open(), 0, &parts[0]);
    export.source = source("segmentEndTime");
    let Err(Failure::Usage(message)) = export.try_open(false) else { panic!("not refused") };
    assert!(message.contains("begun with account a, window.field segmentStartTime"), "{message}");
    export.source = None;
    assert_eq!(export.open().parts(), 1, "an older gateway does not say it");
    export.source = source("segmentEndTime");
    let writer = export.try_open(true).unwrap();
    assert_eq!(writer.parts(), 0, "--force begins again");
    assert_eq!(export.write(writer, &parts).1.source, export.source);
}

#[test]
fn export_killed_in_its_last_steps_is_finished_by_the_next_start() {
    let parts = vec![items(2, 0), items(1, 2)];
    let export = Export::new("json.gz");
    let mut writer = export.open();
    write_part(&mut writer, 0, &parts[0]);
    write_part(&mut writer, 1, &parts[1]);
    let journal = fs::read(export.destination.journal()).unwrap();
    let partial = fs::read(export.destination.partial()).unwrap();
    let expected = export.write(writer, &parts);
    // Killed before the journal was removed.
    fs::write(export.destination.journal(), &journal).unwrap();
    assert!(matches!(start(&export.destination, &export.parameters, false).unwrap(), Start::Done(_)));
    assert!(!export.destination.journal().exists());
    // Killed between the manifest and the file's name.
    fs::write(export.destination.journal(), &journal).unwrap();
    fs::write(export.destination.partial(), [&partial[..], b"the end"].concat()).unwrap();
    fs::remove_file(&export.destination.path).unwrap();
    assert_eq!(export.write(export.open(), &parts), expected);
    assert_eq!(fs::read_dir(export.directory.path()).unwrap().count(), 2, "the file and its manifest");
}

#[test]
fn value_that_no_column_takes_ends_the_export() {
    let mut export = Export::new("parquet");
    export.parameters.columns.as_mut().unwrap().pop();
    let Ok(mut writer) = export.try_open(false) else { return };
    let Err(Failure::Usage(message)) = writer.push(b"{\"n\":\"many\"}\n") else { panic!("not refused") };
    assert!(message.starts_with("row 1: the value of column n"), "{message}");
}
