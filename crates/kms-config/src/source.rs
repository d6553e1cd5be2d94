//! Where settings come from.

/// Where a setting comes from. The greater one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A TOML file that other users can read.
    SharedToml,
    Toml,
    EnvFile,
    Environment,
}
