//! Operation of the gateway process: start, shutdown, access log, audit log, metric descriptions and labels.

mod access_log;
mod audit_log;
mod cordon;
mod metric_descriptions;
mod metric_labels;
mod serve;
mod shutdown;
