//! `koregate simulate`: the simulator of the upstream alone.

mod flags;

use anyhow::Context as _;
use jiff::Timestamp;
use koregate_simulator::{Control, Credential, Simulator, StreamProfile};

pub use self::flags::SimulateArgs;
use crate::clock::Clock;

/// Runs the simulator until Ctrl-C or SIGTERM, then prints the number of calls by outcome.
///
/// # Errors
/// If the address cannot be bound.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    let simulator =
        Simulator::start(args.profile()).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let control = simulator.control();
    if let Some(plan) = args.fault_plan() {
        control.set_faults(plan);
    }
    print_welcome(&simulator, &control);
    super::serve::stop_signal()?.recv().await;
    simulator.shutdown().await;
    println!("{}", serde_json::to_string_pretty(&control.counts())?);
    Ok(())
}

fn print_welcome(simulator: &Simulator, control: &Control) {
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
        let today = Timestamp::from(Clock::system().now()).strftime("%Y-%m-%d").to_string();
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
