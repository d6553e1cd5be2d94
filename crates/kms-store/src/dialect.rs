//! The SQL in which PostgreSQL and SQLite differ.

/// The dialect of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

impl Dialect {
    /// The scalar function that returns the largest of its arguments.
    pub(crate) fn greatest(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "greatest",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "max",
        }
    }

    /// The scalar function that returns the smallest of its arguments.
    pub(crate) fn least(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "least",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "min",
        }
    }

    /// A query for the quoted name of the connection's role, which is empty without roles.
    pub(crate) fn current_role(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "select quote_ident(current_user) as text",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "select '' as text",
        }
    }

    /// The database's clock in milliseconds since 1970. It advances within a transaction.
    pub(crate) fn clock(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "cast(extract(epoch from clock_timestamp()) * 1000 as bigint)",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "cast(unixepoch('subsec') * 1000 as integer)",
        }
    }

    /// A condition that is true. PostgreSQL then commits this transaction without waiting for the
    /// disk: after a crash of PostgreSQL its last half second may be lost.
    pub(crate) fn without_waiting_for_disk(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "set_config('synchronous_commit', 'off', true) is not null",
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "true",
        }
    }

    /// The version of the contact key of a sealed column, as two hexadecimal digits.
    pub(crate) fn sealed_under(self, column: &str) -> String {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => format!("encode(substr({column}, 2, 1), 'hex')"),
            #[cfg(feature = "sqlite")]
            Self::Sqlite => format!("lower(hex(substr({column}, 2, 1)))"),
        }
    }

    /// The end of a select of rows to delete: it skips rows that another transaction has locked,
    /// which may wait for one of these.
    pub(crate) fn skip_locked(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres => "for update skip locked",
            // SQLite has one writer at a time.
            #[cfg(feature = "sqlite")]
            Self::Sqlite => "",
        }
    }
}
