//! Operation of the gateway process: start, reload, shutdown, access log, audit log, metric descriptions and labels.

mod access_log;
mod audit_log;
mod client_limits;
mod cordon;
mod metric_descriptions;
mod metric_labels;
mod reload;
mod serve;
mod shutdown;
