//! `koregate warm`: has a running gateway cache a span of one stream.

mod estimate;

use std::process::ExitCode;

use super::span::{Failure, Filler, Gateway, Progress, Span, SpanArgs, USE_URL, check_settled, finish, until_signal};
use crate::cli::output::{self, OutputError};

/// The flags of `warm`.
#[derive(Clone, Debug, clap::Args)]
pub struct WarmArgs {
    #[command(flatten)]
    span: SpanArgs,

    /// Only print what it would cost; makes no upstream call
    #[arg(long)]
    estimate: bool,
}

/// Caches the span, or says what that would cost. The exit code is 2 for wrong use, 1 for a failure that may pass, and
/// 130 or 143 after a signal.
pub async fn run(args: WarmArgs) -> ExitCode {
    let result = match Gateway::new(&args.span) {
        Ok(gateway) => {
            let result = tokio::select! {
                result = warm(&gateway, &args) => result,
                stopped = until_signal() => Err(stopped),
            };
            gateway.close().await;
            result
        }
        Err(failure) => Err(failure),
    };
    finish(result, "the same command goes on: what was fetched is cached")
}

async fn warm(gateway: &Gateway, args: &WarmArgs) -> Result<(), Failure> {
    let span = Span::parse(&args.span.from, &args.span.to).map_err(Failure::Usage)?;
    let parts = span.parts();
    let progress = Progress::new(parts.len(), 0, None);
    if args.estimate {
        let cost = gateway.cost_of(&parts, &progress).await?;
        return match output::write(&estimate::describe(&cost, &span)) {
            // The reader has read enough.
            Ok(()) | Err(OutputError::Closed) => Ok(()),
            Err(error) => Err(Failure::failed(error.to_string())),
        };
    }
    if !gateway.keeps_what_it_fetches() {
        return Err(Failure::Usage(format!(
            "without cache.redis and without cache.disk, what this process fetches is gone when it ends. {USE_URL}"
        )));
    }
    check_settled(gateway, &parts, args.span.open, &progress).await?;
    let all = async {
        let (mut filler, mut done) = (Filler::new(gateway, &progress), 0);
        while done < parts.len() {
            let cached = filler.fill(&parts[done..]).await?;
            progress.finish_parts(cached, 0);
            done += cached;
        }
        Ok(())
    };
    let result = tokio::select! {
        result = all => result,
        never = progress.show() => match never {},
    };
    progress.end();
    result
}
