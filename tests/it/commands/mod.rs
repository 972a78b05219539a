//! The commands of the binary beside `serve`.

mod check;
mod demo;
mod doctor;
mod export;
mod generate;
mod key;
mod output;
mod simulate;
mod token;

/// The client secret of the simulator's default profile, which no command may print.
const SECRET: &str = "simulated-secret-of-no-worth-at-all=";
