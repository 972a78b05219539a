//! `koregate simulate`: the simulator of the upstream alone, every switch of it a flag.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use crate::clock::Clock;
use crate::simulator::{
    Control, Credential, Envelope, Fault, FaultPlan, Latency, Limit, Order, Profile, SelectOn, Simulator,
    StreamProfile, TokenScheme,
};
use crate::units::parse_duration;
use crate::window::{Timestamp, UpperBound};

/// Plays the upstream on loopback, with made-up data. Durations are written 250ms, 30s, 15m, 1h or 7d.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct SimulateArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9400")]
    pub listen: SocketAddr,

    /// The account id to be called with
    #[arg(long, default_value_t = Credential::default().account_id)]
    pub account_id: String,

    /// The claim appId that tokens must carry
    #[arg(long, default_value_t = Credential::default().client_id)]
    pub client_id: String,

    /// The secret that tokens must be signed with; it opens nothing but this simulator
    #[arg(long, default_value_t = Credential::default().client_secret)]
    pub client_secret: String,

    /// A stream and its items a day, as ID or ID=ITEMS; may be given more than once [default: one stream of 1700]
    #[arg(long = "stream", value_name = "ID=ITEMS", value_parser = stream)]
    pub streams: Vec<StreamProfile>,

    /// Exactly the given number of items on each UTC day, not within a tenth of it
    #[arg(long)]
    pub exact: bool,

    /// The same load at every hour, not busy days and quiet nights
    #[arg(long)]
    pub flat: bool,

    /// What all data derives from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Days of data
    #[arg(long, default_value_t = 30)]
    pub days: u32,

    /// Where the data stops, as 2026-02-25T00:00:00Z [default: the end of this UTC day]
    #[arg(long, value_parser = moment)]
    pub end: Option<Timestamp>,

    /// The timestamp that from and to select on
    #[arg(long, value_enum, default_value = "start")]
    pub select_on: SelectOn,

    /// Leave out an item exactly at `to` (a `to` that is a date covers its day all the same)
    #[arg(long)]
    pub exclusive_to: bool,

    /// How items are sorted
    #[arg(long, value_enum, default_value = "ascending")]
    pub order: Order,

    /// The most items in one answer
    #[arg(long, default_value_t = 100)]
    pub page_limit: usize,

    /// Refuse longer windows
    #[arg(long, value_parser = duration)]
    pub longest_span: Option<Duration>,

    /// The order of the keys around the data
    #[arg(long, value_enum, default_value = "documented")]
    pub envelope: Envelope,

    /// How the auth header must carry the token
    #[arg(long, value_enum, default_value = "either")]
    pub scheme: TokenScheme,

    /// Want a fresh jti in each token, and a life of at most an hour
    #[arg(long)]
    pub enforce_jti: bool,

    /// Refuse every token as one that lacks the API scope
    #[arg(long)]
    pub scope_missing: bool,

    /// Name the text of an error `message`, not `msg`
    #[arg(long)]
    pub error_key_message: bool,

    /// A rolling limit, as 60/1m; may be given more than once [default: 60/1m and 1800/1h]
    #[arg(long = "limit", value_name = "CALLS/PER", value_parser = limit)]
    pub limits: Vec<Limit>,

    /// No limits at all
    #[arg(long, conflicts_with = "limits")]
    pub no_limits: bool,

    /// The status of a call above a limit: 429, 400 or 403
    #[arg(long, default_value_t = 429, value_parser = clap::value_parser!(u16).range(400..600))]
    pub limit_status: u16,

    /// Say in Retry-After when a call would pass again
    #[arg(long)]
    pub retry_after: bool,

    /// Let calls that were refused for a limit count against it
    #[arg(long)]
    pub count_refused: bool,

    /// Tell in X-RateLimit-* on every answer how the shortest limit stands
    #[arg(long)]
    pub rate_limit_headers: bool,

    /// How long each call takes
    #[arg(long, default_value = "120ms", value_parser = duration)]
    pub latency: Duration,

    /// Up to how much longer some calls take
    #[arg(long, default_value = "80ms", value_parser = duration)]
    pub jitter: Duration,

    /// How long after its timestamp an item can be seen
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub visibility_delay: Duration,

    /// The share of items that come late, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub late: f64,

    /// How late they come
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub late_by: Duration,

    /// The share of items whose bytes change at first, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub changing: f64,

    /// The age at which they are final
    #[arg(long, default_value = "6h", value_parser = duration)]
    pub changes_until: Duration,

    /// Go wrong in this way; POST /simulator/faults changes it while it runs
    #[arg(long, value_enum)]
    pub fault: Option<Fault>,

    /// How many good calls pass before the first fault
    #[arg(long, default_value_t = 0, requires = "fault")]
    pub fault_after: u64,

    /// How many calls go wrong [default: all]
    #[arg(long, requires = "fault")]
    pub fault_times: Option<u64>,

    /// How long slow faults take
    #[arg(long, default_value = "1m", value_parser = duration, requires = "fault")]
    pub fault_delay: Duration,

    /// What the fault too-many says in Retry-After
    #[arg(long, default_value = "1s", value_parser = duration, requires = "fault")]
    pub fault_retry_after: Duration,
}

impl SimulateArgs {
    /// The simulator that the flags describe.
    pub fn profile(&self) -> Profile {
        let stream = |stream: &StreamProfile| StreamProfile { exact: self.exact, flat: self.flat, ..stream.clone() };
        let streams = if self.streams.is_empty() { &[StreamProfile::default()][..] } else { &self.streams };
        let limits = match (self.no_limits, self.limits.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => Limit::kore(),
            (false, false) => self.limits.clone(),
        };
        Profile {
            listen: self.listen,
            account: Credential {
                account_id: self.account_id.clone(),
                client_id: self.client_id.clone(),
                client_secret: self.client_secret.clone(),
            },
            more_accounts: Vec::new(),
            streams: streams.iter().map(stream).collect(),
            seed: self.seed,
            days: self.days,
            end: self.end,
            select_on: self.select_on,
            upper_bound: if self.exclusive_to { UpperBound::Exclusive } else { UpperBound::Inclusive },
            order: self.order,
            page_limit: self.page_limit,
            longest_span: self.longest_span,
            envelope: self.envelope,
            scheme: self.scheme,
            enforce_jti: self.enforce_jti,
            scope_missing: self.scope_missing,
            error_key_message: self.error_key_message,
            limits,
            limit_status: self.limit_status,
            retry_after: self.retry_after,
            count_refused: self.count_refused,
            rate_limit_headers: self.rate_limit_headers,
            latency: Latency { fixed: self.latency, jitter: self.jitter },
            visibility_delay: self.visibility_delay,
            late: self.late,
            late_by: self.late_by,
            changing: self.changing,
            changes_until: self.changes_until,
        }
    }

    fn faults(&self) -> Option<FaultPlan> {
        self.fault.map(|fault| FaultPlan {
            fault,
            after: self.fault_after,
            times: self.fault_times,
            delay: self.fault_delay,
            retry_after: self.fault_retry_after,
        })
    }
}

/// Runs the simulator until Ctrl-C or SIGTERM, then prints what it counted.
///
/// # Errors
/// When the address cannot be bound.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let profile = args.profile();
    let listen = profile.listen;
    let simulator =
        Simulator::start(profile, Clock::system()).await.with_context(|| format!("cannot listen on {listen}"))?;
    let control = simulator.control();
    if let Some(plan) = args.faults() {
        control.set_faults(plan);
    }
    greet(&simulator, &control);
    super::serve::stop_signal()?.recv().await;
    simulator.shutdown().await;
    println!("{}", serde_json::to_string_pretty(&control.counts())?);
    Ok(())
}

fn greet(simulator: &Simulator, control: &Control) {
    let (base, profile) = (simulator.base_url(), control.profile());
    let Credential { account_id, client_id, client_secret } = &profile.account;
    println!("base url       {base}");
    println!("account id     {account_id}");
    println!("client id      {client_id}");
    println!("client secret  {client_secret}");
    for StreamProfile { id, .. } in &profile.streams {
        println!("stream         {id} ({} items)", control.items(id));
    }
    if let (Some(stream), Some(token)) = (profile.streams.first(), control.token()) {
        let today = Clock::system().now().to_string();
        let today = today.get(..10).unwrap_or_default();
        println!("\ntry, within the hour:");
        println!("curl -H 'accountId: {account_id}' -H 'auth: {token}' \\");
        println!(
            "  '{base}/agentassist/api/v1/public/{}/v2/agentassistinteractions?from={today}&to={today}&limit=2'",
            stream.id
        );
    }
    println!("\nsteer: GET {base}/simulator/counts, POST {base}/simulator/reset,");
    println!("       POST {base}/simulator/faults with {{\"kind\": \"status-500\", \"times\": 3, \"after\": 0}}");
}

fn stream(text: &str) -> Result<StreamProfile, String> {
    let (id, items) = text.split_once('=').unwrap_or((text, "1700"));
    let items = items.parse().map_err(|_| format!("{items} is not a number of items"))?;
    if id.is_empty() || id.contains('/') {
        Err("a stream needs an id".to_owned())
    } else {
        Ok(StreamProfile::new(id, items))
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    let (requests, per) = text.split_once('/').ok_or("a limit is written 60/1m")?;
    let requests = requests.parse().map_err(|_| format!("{requests} is not a number of calls"))?;
    Ok(Limit::new(requests, duration(per)?))
}

fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse::<jiff::Timestamp>().map(Timestamp::from).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a duration (at most 36500d); write it like 250ms, 30s, 5m or 24h");
    parse_duration(text).ok_or_else(expected)
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
    fn flags_make_a_profile() {
        let profile =
            parse("--stream a=10 --stream b --limit 5/10s --longest-span 7d --exact --order shuffled").expect("valid");
        assert_eq!(profile.listen.port(), 9_400);
        assert_eq!(profile.streams.iter().map(|stream| stream.items_per_day).collect::<Vec<_>>(), [10, 1_700]);
        assert!(profile.streams.iter().all(|stream| stream.exact));
        assert_eq!(profile.limits, [Limit::new(5, Duration::from_secs(10))]);
        assert_eq!(profile.longest_span, Some(Duration::from_hours(24 * 7)));
        assert_eq!(parse("").expect("valid").limits, Limit::kore());
        assert!(parse("--no-limits").expect("valid").limits.is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        for flags in
            ["--limit 5", "--limit x/1m", "--latency 5", "--latency 5w", "--stream =5", "--end soon", "--fault none"]
        {
            assert!(parse(flags).is_err(), "{flags}");
        }
    }
}
