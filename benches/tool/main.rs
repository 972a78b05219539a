//! What the commands in `benches/` are made of: one binary, so that there is one thing to link.
//!
//! It stands apart from `koregate` itself, as a bench target, so that nothing of it is in the product. The scripts
//! beside this folder build and start it; `benches/README.md` tells what for.

mod drain;
mod floor;
mod hot;
mod replay;
mod rig;

use std::process::ExitCode;

use self::drain::Bodies;

const USAGE: &str = "usage: tool floor ADDRESS DIRECTORY
       tool drain ADDRESS REQUEST-FILE CONNECTIONS SECONDS
       tool read ADDRESS REQUEST-FILE CONNECTIONS SECONDS
       tool hot
       tool replay

It is started by the scripts in benches/.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match *args.as_slice() {
        ["floor", address, directory] => floor::run(address, directory),
        ["drain", address, request, connections, seconds] => {
            drain::run(Bodies::Discarded, address, request, connections, seconds)
        }
        ["read", address, request, connections, seconds] => {
            drain::run(Bodies::Copied, address, request, connections, seconds)
        }
        ["hot"] => hot::run(),
        ["replay"] => replay::run(),
        // Cargo itself starts each bench target: `cargo bench` with one flag, `cargo test --all-targets` with none.
        [] | ["--bench"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tool: {error:#}");
            ExitCode::FAILURE
        }
    }
}
