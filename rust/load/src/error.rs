//! What stops a run. What a server does wrong is counted instead, in `check`.

use std::fmt;
use std::io;

/// Why a run could not begin or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// `--url` is not `ws://ADDRESS:PORT/PATH`.
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An option is outside its range.
    OutOfRange {
        /// The option.
        option: &'static str,
        /// As given.
        value: u64,
        /// The least that is allowed.
        lowest: u64,
        /// The most that is allowed.
        highest: u64,
    },
    /// An option does not go with another.
    Conflict {
        /// The option.
        option: &'static str,
        /// What it does not go with.
        why: &'static str,
    },
    /// The system refused a call that the run needs.
    System {
        /// What was attempted.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A line on stdin is not a command.
    Command {
        /// The line.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// A child process ended early or said something else than it should.
    Child {
        /// Its number, from 0.
        child: usize,
        /// What it did.
        why: String,
    },
}

impl LoadError {
    /// Wraps the system's answer to `what`.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, why } => write!(f, "--url {url}: {why}; it must be ws://ADDRESS:PORT/PATH"),
            Self::OutOfRange { option, value, lowest, highest } => {
                write!(f, "{option} is {value}, but must be {lowest} to {highest}")
            }
            Self::Conflict { option, why } => write!(f, "{option}: {why}"),
            Self::System { what, source } => write!(f, "{what}: {source}"),
            Self::Command { line, why } => write!(f, "the command {line:?} is not understood: {why}"),
            Self::Child { child, why } => write!(f, "child {child}: {why}"),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}
