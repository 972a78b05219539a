//! The writer of an export as a sink of items: its work is done on threads that may block.

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::writer::ExportWriter;
use crate::cli::span::{Failure, ItemSink};

/// A writer that works on other threads.
pub(super) struct WriterSink(Option<ExportWriter>);

impl WriterSink {
    pub(super) fn new(writer: ExportWriter) -> Self {
        Self(Some(writer))
    }

    /// The writer, when its work is done.
    ///
    /// # Errors
    /// If its work was interrupted.
    pub(super) fn into_writer(self) -> Result<ExportWriter, Failure> {
        self.0.ok_or_else(interrupted)
    }

    /// Ends the part of `day`. Returns its number of rows.
    ///
    /// # Errors
    /// See [`ExportWriter::end_part`].
    pub(super) async fn end_part(&mut self, day: String) -> Result<u64, Failure> {
        self.work(move |writer| writer.end_part(&day)).await
    }

    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut ExportWriter) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut writer = self.0.take().ok_or_else(interrupted)?;
        let worked = spawn_blocking(move || {
            let result = work(&mut writer);
            (writer, result)
        });
        let (writer, result) = worked.await.map_err(|error| Failure::failed(error.to_string()))?;
        self.0 = Some(writer);
        result
    }
}

impl ItemSink for WriterSink {
    async fn restart(&mut self) -> Result<(), Failure> {
        self.work(ExportWriter::discard_part).await
    }

    async fn push(&mut self, lines: Bytes) -> Result<(), Failure> {
        self.work(move |writer| writer.push(&lines)).await
    }
}

fn interrupted() -> Failure {
    Failure::failed("the file is not written any more")
}
