//! `koregate export`: writes a span of one stream to a file, part by part. Killed at any moment and started again, it
//! goes on, and the file is byte for byte that of an uninterrupted run.
//!
//! | file | |
//! | --- | --- |
//! | `destination` | the file, its format by its ending, and the files beside it (pure) |
//! | `parameters` | what decides the content |
//! | `columns`, `schema_file` | the columns of CSV and Parquet (pure) |
//! | `format` | the formats and their compression |
//! | `partial_file` | the unfinished file: locked, hashed, cut back |
//! | `journal` | the parts that are in it |
//! | `manifest` | the description of the finished file |
//! | `writer` | all of these together, in an order that is safe to be killed in |
//! | `sink` | the writer on threads that may block |

mod columns;
mod destination;
mod format;
mod journal;
mod manifest;
mod parameters;
mod partial_file;
mod schema_file;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;

use self::columns::{Column, Columns};
use self::destination::{Destination, FileFormat};
use self::manifest::Manifest;
use self::parameters::Parameters;
use self::sink::WriterSink;
use self::writer::{ExportWriter, LockedFile, Start};
use super::span::{Failure, Filler, Gateway, Progress, Span, SpanArgs, check_settled, finish, until_signal};
use crate::cli::output::complain;
use crate::clock::Clock;

/// The flags of `export`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    span: SpanArgs,

    /// The file; its ending is .ndjson, .json or .csv, also with .gz or .zst behind it, or .parquet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Columns of CSV and Parquet, as segmentID,agent.agentId,*; `*` has all members without a column
    #[arg(long, value_name = "PATHS", value_delimiter = ',', conflicts_with = "schema")]
    fields: Option<Vec<String>>,

    /// TOML file with the columns of Parquet and their types
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,

    /// Replace a file that is there, and begin again what was begun with other parameters
    #[arg(long)]
    force: bool,
}

/// Writes the file. The exit code is 0 if the file is there and whole, 2 for wrong use, 1 for a failure that may pass,
/// and 130 or 143 after a signal.
pub async fn run(args: ExportArgs) -> ExitCode {
    let result = export(&args).await;
    finish(result, &how_to_go_on(&args))
}

fn how_to_go_on(args: &ExportArgs) -> String {
    format!("the same command goes on with what is in {}.partial", args.output.display())
}

async fn export(args: &ExportArgs) -> Result<(), Failure> {
    let span = Span::parse(&args.span.from, &args.span.to).map_err(Failure::Usage)?;
    let destination = Destination::parse(&args.output).map_err(Failure::Usage)?;
    let parameters = parameters(args, &destination).map_err(Failure::Usage)?;
    let locked = match writer::start(&destination, &parameters, args.force)? {
        Start::Done(manifest) => {
            complain(&format_args!("{}: done already, {}", destination.path.display(), describe(&manifest)));
            return Ok(());
        }
        Start::Open(locked) => locked,
    };
    let was_begun = locked.entries.is_some();
    let result = match Gateway::new(&args.span) {
        Ok(gateway) => {
            let result = tokio::select! {
                result = write(&gateway, span, *locked, &destination, &parameters, args.force) => result,
                stopped = until_signal() => Err(stopped),
            };
            gateway.close().await;
            result
        }
        Err(failure) => Err(failure),
    };
    match result {
        Ok(manifest) => {
            complain(&format_args!("{}: {}", destination.path.display(), describe(&manifest)));
            Ok(())
        }
        Err(failure) => {
            let is_refused_at_once = !was_begun && matches!(failure, Failure::Usage(_));
            let goes_on = writer::clean_up(&destination, &parameters, is_refused_at_once);
            Err(match failure {
                Failure::Usage(message) if goes_on => {
                    let way = how_to_go_on(args);
                    Failure::Usage(format!(
                        "{message}\nonce that is put right, {way}; with other parameters, --force begins again"
                    ))
                }
                other => other,
            })
        }
    }
}

/// Writes the parts that are missing, and ends the file.
async fn write(
    gateway: &Gateway,
    span: Span,
    locked: LockedFile,
    destination: &Destination,
    parameters: &Parameters,
    force: bool,
) -> Result<Manifest, Failure> {
    let source = check_settled(gateway, &span.parts(), parameters.open, &Progress::new(0, 0, None)).await?;
    let locked = locked.of_source(source.as_ref(), destination, force)?;
    // An open span ends where it ended when the export began.
    let now = Clock::system().now();
    let until = locked.entries.as_ref().map_or_else(
        || if parameters.open { cut(span, now) } else { Ok(None) },
        |entries| Ok(entries.header.until.clone()),
    )?;
    let span = match &until {
        Some(to) => Span::parse(&span.from.to_string(), to).map_err(Failure::Usage)?,
        None => span,
    };
    let parts = span.parts();
    let writer = locked.open(destination, parameters, (source, until), force)?;
    let progress = Progress::new(parts.len(), writer.parts(), Some(writer.recorded_rows()));
    if writer.parts() > 0 || writer.damaged_parts() > 0 {
        let damaged = match writer.damaged_parts() {
            0 => String::new(),
            parts => format!("; {parts} were damaged, and are written again"),
        };
        progress.print(&format!("going on: {} of {} days are there{damaged}", writer.parts(), parts.len()));
    }
    let all = async {
        let (mut filler, mut cached) = (Filler::new(gateway, &progress), writer.parts());
        let (done, mut sink) = (writer.parts(), WriterSink::new(writer));
        for (index, part) in parts.iter().enumerate().skip(done) {
            if cached <= index {
                cached = index + filler.fill(&parts[index..]).await?;
            }
            filler.read(part.window, &mut sink).await?;
            let rows = sink.end_part(part.day.to_string()).await?;
            progress.finish_parts(1, rows);
        }
        sink.into_writer()
    };
    let written = tokio::select! {
        result = all => result,
        never = progress.show() => match never {},
    };
    progress.end();
    written.and_then(ExportWriter::finish)
}

/// The end at which an open span is cut now.
fn cut(span: Span, now: crate::window::Timestamp) -> Result<Option<String>, Failure> {
    let Some(cut) = span.until(now) else { return Err(Failure::Usage("--from lies in the future".to_owned())) };
    Ok((cut != span).then(|| cut.to.to_string()))
}

/// The parameters that decide the content of the file.
///
/// # Errors
/// A sentence, if the columns are at fault or do not fit the format.
fn parameters(args: &ExportArgs, destination: &Destination) -> Result<Parameters, String> {
    let ExportArgs { span, fields, schema, .. } = args;
    let Destination { format, compression, .. } = *destination;
    let columns = match (format, fields, schema) {
        (FileFormat::Ndjson | FileFormat::Json, None, None) => None,
        (FileFormat::Ndjson | FileFormat::Json, _, _) => {
            return Err("--fields and --schema are for CSV and Parquet".to_owned());
        }
        (FileFormat::Csv, _, Some(_)) => return Err("--schema is for Parquet; CSV has --fields".to_owned()),
        (_, Some(fields), _) => Some(fields.iter().map(|path| Column::at(path)).collect()),
        (_, None, Some(file)) => {
            let named = |error: &dyn std::fmt::Display| format!("--schema: {}: {error}", file.display());
            let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
            Some(schema_file::parse(&text).map_err(|error| named(&error))?)
        }
        (_, None, None) => Some(Column::defaults()),
    };
    if let Some(columns) = &columns {
        Columns::new(columns.clone())?;
    }
    Ok(Parameters {
        stream: span.stream.clone(),
        account: span.account.clone(),
        from: span.from.clone(),
        to: span.to.clone(),
        open: span.open,
        agentic: span.agentic,
        format,
        compression,
        columns,
    })
}

fn describe(manifest: &Manifest) -> String {
    format!("{} rows, {} bytes, sha256 {}", manifest.rows, manifest.bytes, manifest.sha256)
}
