//! The flags of `export` and `warm`.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::units;

/// A span of time of one stream, and the gateway that it is fetched through.
#[derive(Clone, Debug, clap::Args)]
pub struct SpanArgs {
    /// The stream (Kore's streamId)
    #[arg(long, value_name = "ID")]
    pub stream: String,

    /// Begin, UTC, as 2026-02-01 or 2026-02-01T12:00:00
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: String,

    /// End, UTC, as 2026-02-28 (which includes its day) or 2026-02-28T12:00:00
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: String,

    /// The account; needed where the gateway has several
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,

    /// Include agenticActivities in the items
    #[arg(long)]
    pub agentic: bool,

    /// Allow time that is not settled, whose items may still change
    #[arg(long)]
    pub open: bool,

    /// The gateway.
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

/// The gateway through which a span is fetched.
#[derive(Clone, Debug, clap::Args)]
pub struct GatewayArgs {
    /// URL of a running gateway; its API key is read from KOREGATE_API_KEY
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub url: Option<Uri>,

    /// PEM file with certificate authorities of the gateway, beside those of the system
    #[arg(long, value_name = "FILE", requires = "url")]
    pub ca_file: Option<PathBuf>,

    /// Without --url: the configuration with which to call Kore from this process
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Longest time without progress before the command gives up
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = parse_stall_timeout)]
    pub stall_timeout: Duration,
}

fn parse_stall_timeout(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).ok_or_else(|| "write it like 30s, 15m, 2h or 1d".to_owned())
}
