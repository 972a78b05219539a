//! `koregate schema`, `koregate completions` and `koregate man`: files that describe koregate to editors, shells and
//! `man`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::output::print;
use super::{Cli, finish};
use crate::config::Config;

/// The flags of `completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// The flags of `man`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// The directory for the pages; it is made if it does not exist.
    pub dir: PathBuf,
}

/// Prints the JSON Schema of the configuration.
pub fn schema() -> ExitCode {
    print(&format!("{:#}\n", Config::schema()))
}

/// Prints the completions for a shell.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "koregate", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes a page for koregate and one for each of its commands.
pub fn man(args: &ManArgs) -> ExitCode {
    finish(write_pages(args))
}

fn write_pages(args: &ManArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("the pages cannot be written to {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_command_has_a_manual_page() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManArgs { dir: dir.path().join("man/man1") };
        assert_eq!(man(&args), ExitCode::SUCCESS);
        let commands =
            Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect::<Vec<_>>();
        assert!(commands.iter().any(|name| name == "serve"), "{commands:?}");
        for name in commands {
            let page = std::fs::read_to_string(args.dir.join(format!("koregate-{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
        }
        assert!(std::fs::read_to_string(args.dir.join("koregate.1")).unwrap().contains("koregate\\-serve(1)"));

        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(man(&ManArgs { dir: file }), ExitCode::FAILURE);
    }

    #[test]
    fn completions_know_commands_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "koregate", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["serve", "health", "completions", "config"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
        }
        assert!(Shell::value_variants().len() >= 3);
    }
}
