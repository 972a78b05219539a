//! `koregate simulate`: the simulator of the upstream alone.

mod flags;

use anyhow::Context as _;
use jiff::Timestamp;
use koregate_simulator::{Control, Credential, Simulator, StreamProfile};

pub use self::flags::SimulateArgs;
use super::output::{self, OutputError};
use crate::clock::Clock;

/// Runs the simulator until Ctrl-C or SIGTERM, then prints the number of calls by outcome. It goes on without a reader
/// of its output.
///
/// # Errors
/// If the address cannot be bound, or the output cannot be written.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let simulator =
        Simulator::start(args.profile()).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let control = simulator.control();
    if let Some(plan) = args.fault_plan() {
        control.set_faults(plan);
    }
    print(&welcome(&simulator, &control))?;
    super::serve::stop_signal()?.recv().await;
    simulator.shutdown().await;
    Ok(print(&format!("{}\n", serde_json::to_string_pretty(&control.counts())?))?)
}

/// Writes to standard output, unless its reader has gone.
fn print(text: &str) -> Result<(), OutputError> {
    match output::write(text) {
        Err(OutputError::Closed) => Ok(()),
        written => written,
    }
}

/// What a client needs to know of the simulator.
fn welcome(simulator: &Simulator, control: &Control) -> String {
    let (base, profile) = (simulator.base_url(), control.profile());
    let Credential { account_id, client_id, client_secret } = &profile.account;
    let mut lines = vec![
        format!("base url       {base}"),
        format!("account id     {account_id}"),
        format!("client id      {client_id}"),
        format!("client secret  {client_secret}"),
    ];
    let stream_line =
        |stream: &StreamProfile| format!("stream         {} ({} items)", stream.id, control.items(&stream.id));
    lines.extend(profile.streams.iter().map(stream_line));
    if let (Some(stream), Some(token)) = (profile.streams.first(), control.token()) {
        let today = Timestamp::from(Clock::system().now()).strftime("%Y-%m-%d").to_string();
        lines.push(format!(
            "\ntry, within the hour:\ncurl -H 'accountId: {account_id}' -H 'auth: {token}' \\\n  \
             '{base}/agentassist/api/v1/public/{}/v2/agentassistinteractions?from={today}&to={today}&limit=2'",
            stream.id
        ));
    }
    lines.push(format!(
        "\nsteer: GET {base}/simulator/counts, POST {base}/simulator/reset,\n       \
         POST {base}/simulator/faults with {{\"kind\": \"status-500\", \"times\": 3, \"after\": 0}}\n"
    ));
    lines.join("\n")
}
