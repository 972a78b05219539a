//! The flags of `koregate simulate`.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use koregate_simulator::{
    AcceptedScheme, ApiVariant, Credential, EnvelopeOrder, Fault, FaultPlan, ItemChanges, Latency, Profile, RateLimits,
    RollingLimit, SelectOn, SortOrder, StreamProfile, TokenRules,
};

use crate::units;

/// Simulates the upstream on loopback, with generated data. Durations are written 250ms, 30s, 15m, 1h or 7d.
#[derive(Clone, Debug, clap::Args)]
pub struct SimulateArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9400")]
    pub listen: SocketAddr,

    #[command(flatten)]
    credential: CredentialFlags,

    #[command(flatten)]
    data: DataFlags,

    #[command(flatten)]
    api: ApiFlags,

    #[command(flatten)]
    token: TokenFlags,

    #[command(flatten)]
    rate_limits: RateLimitFlags,

    #[command(flatten)]
    latency: LatencyFlags,

    #[command(flatten)]
    changes: ItemChangeFlags,

    #[command(flatten)]
    fault: FaultFlags,
}

#[derive(Clone, Debug, clap::Args)]
struct CredentialFlags {
    /// Account id that requests must name
    #[arg(long, default_value_t = Credential::default().account_id)]
    account_id: String,

    /// The claim appId that tokens must carry
    #[arg(long, default_value_t = Credential::default().client_id)]
    client_id: String,

    /// Secret that tokens must be signed with; it is valid for this simulator only
    #[arg(long, default_value_t = Credential::default().client_secret)]
    client_secret: String,
}

#[derive(Clone, Debug, clap::Args)]
struct DataFlags {
    /// A stream and its items a day, as ID or ID=ITEMS; may be given more than once [default: one stream of 1700]
    #[arg(long = "stream", value_name = "ID=ITEMS", value_parser = parse_stream)]
    streams: Vec<StreamProfile>,

    /// Exactly the given number of items on each UTC day, instead of within a tenth of it
    #[arg(long)]
    exact: bool,

    /// The same load at every hour, instead of busy days and quiet nights
    #[arg(long)]
    flat: bool,

    /// No numbers, escapes and white space that make readers of JSON stumble, such as 1e2 or 12345678901234567890
    #[arg(long)]
    plain: bool,

    /// Seed of all generated data
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Days of data
    #[arg(long, default_value_t = 30)]
    days: u32,

    /// End of the data, as 2026-02-25T00:00:00Z [default: the end of this UTC day]
    #[arg(long)]
    end: Option<Timestamp>,
}

#[derive(Clone, Debug, clap::Args)]
struct ApiFlags {
    /// The timestamp that from and to select on
    #[arg(long, value_enum, default_value = "start")]
    select_on: SelectOn,

    /// Leave out an item exactly at `to` (a date-only `to` covers its day in either case)
    #[arg(long)]
    exclusive_to: bool,

    /// Order of the items
    #[arg(long, value_enum, default_value = "ascending")]
    order: SortOrder,

    /// Maximum number of items in one response
    #[arg(long, default_value_t = 100)]
    page_limit: usize,

    /// Refuse longer windows
    #[arg(long, value_parser = parse_duration)]
    longest_span: Option<Duration>,

    /// Order of the keys around the data
    #[arg(long, value_enum, default_value = "documented")]
    envelope: EnvelopeOrder,

    /// Name the text of an error `message` instead of `msg`
    #[arg(long)]
    error_key_message: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct TokenFlags {
    /// Form of the auth header
    #[arg(long, value_enum, default_value = "either")]
    scheme: AcceptedScheme,

    /// Require an unused jti in each token, and a lifetime of at most one hour
    #[arg(long)]
    enforce_jti: bool,

    /// Refuse every token for lack of the API scope
    #[arg(long)]
    scope_missing: bool,
}

#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each field is a flag")]
struct RateLimitFlags {
    /// A rolling limit, as 60/1m; may be given more than once [default: 60/1m and 1800/1h]
    #[arg(long = "limit", value_name = "CALLS/PER", value_parser = parse_limit)]
    limits: Vec<RollingLimit>,

    /// No limits at all
    #[arg(long, conflicts_with = "limits")]
    no_limits: bool,

    /// Status of a call above a limit: 429, 400 or 403
    #[arg(long, default_value_t = 429, value_parser = clap::value_parser!(u16).range(400..600))]
    limit_status: u16,

    /// State in Retry-After when a call would pass
    #[arg(long)]
    retry_after: bool,

    /// Count calls that were refused because of a limit against the limits
    #[arg(long)]
    count_refused: bool,

    /// Report the shortest limit in X-RateLimit-* on every response
    #[arg(long)]
    rate_limit_headers: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct LatencyFlags {
    /// Minimum latency of a call
    #[arg(long, default_value = "120ms", value_parser = parse_duration)]
    latency: Duration,

    /// Maximum additional latency
    #[arg(long, default_value = "80ms", value_parser = parse_duration)]
    jitter: Duration,
}

#[derive(Clone, Debug, clap::Args)]
struct ItemChangeFlags {
    /// Delay from an item's timestamp to its appearance
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    visibility_delay: Duration,

    /// Share of items that appear late, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    late: f64,

    /// Additional delay of late items
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    late_by: Duration,

    /// Share of items whose bytes change at first, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    changing: f64,

    /// Age at which changing items are final
    #[arg(long, default_value = "6h", value_parser = parse_duration)]
    changes_until: Duration,
}

#[derive(Clone, Debug, clap::Args)]
struct FaultFlags {
    /// Inject this fault; POST /simulator/faults changes it at runtime
    #[arg(long, value_enum)]
    fault: Option<Fault>,

    /// Number of calls that succeed before the first fault
    #[arg(long, default_value_t = 0, requires = "fault")]
    fault_after: u64,

    /// Number of calls that fail [default: all]
    #[arg(long, requires = "fault")]
    fault_times: Option<u64>,

    /// Delay of slow faults
    #[arg(long, default_value = "1m", value_parser = parse_duration, requires = "fault")]
    fault_delay: Duration,

    /// Retry-After of the fault too-many
    #[arg(long, default_value = "1s", value_parser = parse_duration, requires = "fault")]
    fault_retry_after: Duration,
}

impl SimulateArgs {
    /// The profile that the flags describe.
    pub fn profile(&self) -> Profile {
        Profile {
            listen: self.listen,
            account: self.credential.credential(),
            more_accounts: Vec::new(),
            streams: self.data.streams(),
            seed: self.data.seed,
            plain: self.data.plain,
            days: self.data.days,
            end: self.data.end,
            api: self.api.variant(),
            token: self.token.rules(),
            rate_limits: self.rate_limits.rate_limits(),
            latency: Latency { fixed: self.latency.latency, jitter: self.latency.jitter },
            changes: self.changes.changes(),
        }
    }

    pub(super) fn fault_plan(&self) -> Option<FaultPlan> {
        let flags = &self.fault;
        flags.fault.map(|fault| FaultPlan {
            fault,
            after: flags.fault_after,
            times: flags.fault_times,
            delay: flags.fault_delay,
            retry_after: flags.fault_retry_after,
        })
    }
}

impl CredentialFlags {
    fn credential(&self) -> Credential {
        let Self { account_id, client_id, client_secret } = self.clone();
        Credential { account_id, client_id, client_secret }
    }
}

impl DataFlags {
    fn streams(&self) -> Vec<StreamProfile> {
        let stream = |stream: &StreamProfile| StreamProfile { exact: self.exact, flat: self.flat, ..stream.clone() };
        let streams = if self.streams.is_empty() { &[StreamProfile::default()][..] } else { &self.streams };
        streams.iter().map(stream).collect()
    }
}

impl ApiFlags {
    fn variant(&self) -> ApiVariant {
        ApiVariant {
            select_on: self.select_on,
            exclusive_to: self.exclusive_to,
            order: self.order,
            page_limit: self.page_limit,
            longest_span: self.longest_span,
            envelope: self.envelope,
            error_key_message: self.error_key_message,
        }
    }
}

impl TokenFlags {
    fn rules(&self) -> TokenRules {
        TokenRules { scheme: self.scheme, enforce_jti: self.enforce_jti, scope_missing: self.scope_missing }
    }
}

impl RateLimitFlags {
    fn rate_limits(&self) -> RateLimits {
        let rolling = match (self.no_limits, self.limits.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => RollingLimit::kore_defaults(),
            (false, false) => self.limits.clone(),
        };
        RateLimits {
            rolling,
            refusal_status: self.limit_status,
            retry_after: self.retry_after,
            count_refused: self.count_refused,
            headers: self.rate_limit_headers,
        }
    }
}

impl ItemChangeFlags {
    fn changes(&self) -> ItemChanges {
        ItemChanges {
            visibility_delay: self.visibility_delay,
            late: self.late,
            late_by: self.late_by,
            changing: self.changing,
            changes_until: self.changes_until,
        }
    }
}

fn parse_stream(text: &str) -> Result<StreamProfile, String> {
    let (id, items) = text.split_once('=').unwrap_or((text, "1700"));
    let items = items.parse().map_err(|_| format!("{items} is not a number of items"))?;
    if id.is_empty() || id.contains('/') {
        Err("a stream needs an id".to_owned())
    } else {
        Ok(StreamProfile::new(id, items))
    }
}

fn parse_limit(text: &str) -> Result<RollingLimit, String> {
    let (requests, per) = text.split_once('/').ok_or("a limit is written 60/1m")?;
    let requests = requests.parse().map_err(|_| format!("{requests} is not a number of calls"))?;
    Ok(RollingLimit::new(requests, parse_duration(per)?))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a duration (at most 36500d); write it like 250ms, 30s, 5m or 24h");
    units::parse_duration(text).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parse(flags: &str) -> Result<Profile, clap::Error> {
        Command::try_parse_from(std::iter::once("simulate").chain(flags.split_whitespace()))
            .map(|command| command.args.profile())
    }

    #[test]
    fn valid_flags_make_a_profile() {
        let profile =
            parse("--stream a=10 --stream b --limit 5/10s --longest-span 7d --exact --order shuffled").expect("valid");
        assert_eq!(profile.listen.port(), 9_400);
        assert_eq!(profile.streams.iter().map(|stream| stream.items_per_day).collect::<Vec<_>>(), [10, 1_700]);
        assert!(profile.streams.iter().all(|stream| stream.exact));
        assert_eq!(profile.rate_limits.rolling, [RollingLimit::new(5, Duration::from_secs(10))]);
        assert_eq!(profile.api.longest_span, Some(Duration::from_hours(24 * 7)));
        assert_eq!(parse("").expect("valid").rate_limits.rolling, RollingLimit::kore_defaults());
        assert!(parse("--no-limits").expect("valid").rate_limits.rolling.is_empty());
    }

    #[test]
    fn malformed_flags_are_refused() {
        for flags in
            ["--limit 5", "--limit x/1m", "--latency 5", "--latency 5w", "--stream =5", "--end soon", "--fault none"]
        {
            assert!(parse(flags).is_err(), "{flags}");
        }
    }
}
