//! Operation of the gateway process: start, shutdown, access log and metric labels.

mod access_log;
mod metric_labels;
mod serve;
mod shutdown;
