//! `dfsnap completions` and `dfsnap man`: made from the definitions of the command line, so that they cannot differ.

use crate::cli::Cli;
use crate::report::{Failure, Outcome};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io;
use std::path::Path;

/// Print the completions of a shell
///
/// The shell then completes verbs, options and files.
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  For this session of bash:
    source <(dfsnap completions bash)
  For every session of fish:
    dfsnap completions fish > ~/.config/fish/completions/dfsnap.fish";

/// Print a man page, of dfsnap or of a verb
///
/// The page says what `--help` says.
#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub struct ManArgs {
    /// Verb; without one, the page of dfsnap
    #[arg(value_name = "VERB")]
    pub verb: Option<String>,
}

const MAN_EXAMPLES: &str = "\
Examples:
  Read about a verb:
    dfsnap man inspect | man -l -
  Install the page of dfsnap:
    dfsnap man > /usr/local/share/man/man1/dfsnap.1";

pub fn completions(args: &CompletionsArgs) -> Result<Outcome, Failure> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dfsnap", &mut out);
    outcome(out)
}

pub fn man(args: &ManArgs) -> Result<Outcome, Failure> {
    let mut command = Cli::command();
    command.build();
    let page = match &args.verb {
        None => command,
        Some(verb) => verb_page(&command, verb)?,
    };
    let mut out = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut out)
        .map_err(|error| Failure::write(Path::new("man page"), &error))?;
    outcome(out)
}

/// A page named as in `man dfsnap-inspect`.
fn verb_page(command: &clap::Command, verb: &str) -> Result<clap::Command, Failure> {
    let known = || {
        command
            .get_subcommands()
            .filter(|verb| verb.get_name() != "help")
    };
    match known().find(|known| known.get_name() == verb) {
        Some(found) => {
            let name: &'static str = format!("dfsnap-{verb}").leak();
            Ok(found.clone().name(name).bin_name(format!("dfsnap {verb}")))
        }
        None => {
            let names: Vec<_> = known().map(clap::Command::get_name).collect();
            Err(Failure {
                message: format!("{verb}: no such verb"),
                advice: format!("one of {}", names.join(", ")),
            })
        }
    }
}

fn outcome(text: Vec<u8>) -> Result<Outcome, Failure> {
    let text = String::from_utf8(text).map_err(|error| {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        Failure::output(&error)
    })?;
    Ok(Outcome {
        text,
        finding: false,
    })
}
