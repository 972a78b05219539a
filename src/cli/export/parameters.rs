//! The parameters that decide the content of an export. An unfinished export goes on only with the same ones.

use serde::{Deserialize, Serialize};

use super::columns::Column;
use super::destination::{Compression, FileFormat};

/// The parameters that decide the content of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parameters {
    pub(super) stream: String,
    /// The account, if one was named.
    pub(super) account: Option<String>,
    /// Begin of the span, as in a request.
    pub(super) from: String,
    /// End of the span, as in a request.
    pub(super) to: String,
    /// Whether the span may reach into open time.
    pub(super) open: bool,
    /// Whether items have `agenticActivities`.
    pub(super) agentic: bool,
    pub(super) format: FileFormat,
    pub(super) compression: Compression,
    /// The columns, of formats that have some.
    pub(super) columns: Option<Vec<Column>>,
}
