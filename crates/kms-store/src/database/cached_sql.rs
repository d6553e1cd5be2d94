//! SQL that a connection prepares once.

use std::borrow::Cow;
use std::marker::PhantomData;

use diesel::backend::Backend;
use diesel::expression::{
    AppearsOnTable, AsExpression, Expression, SelectableExpression, TypedExpressionType,
    ValidGrouping, is_aggregate,
};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error;
use diesel::sql_types::{SqlType, Untyped};

use crate::database::AnyConnection;

/// What diesel calls the backend of either database.
pub(crate) type AnyBackend = <AnyConnection as Connection>::Backend;

/// A statement, or an expression of a type, whose text depends on the program and its configuration
/// alone: a connection keeps the prepared statement.
///
/// Diesel cannot know that of [`diesel::sql_query`], [`diesel::dsl::sql`] and [`diesel::update`]:
/// it prepares them anew each time, in another round trip, and PostgreSQL plans them anew.
pub(crate) struct CachedSql<DB: Backend, ST> {
    text: Cow<'static, str>,
    values: Vec<Box<dyn QueryFragment<DB>>>,
    sql_type: PhantomData<ST>,
}

/// Returns a statement whose result is read by the names of its columns. Its text has `$1` for the
/// first value that is bound, and so on, and must not depend on data.
pub(crate) fn cached_query<DB: Backend>(
    text: impl Into<Cow<'static, str>>,
) -> CachedSql<DB, Untyped> {
    cached_sql(text)
}

/// Returns an expression. Its text is as that of [`cached_query`].
pub(crate) fn cached_sql<DB: Backend, ST>(text: impl Into<Cow<'static, str>>) -> CachedSql<DB, ST> {
    CachedSql { text: text.into(), values: Vec::new(), sql_type: PhantomData }
}

impl<DB: Backend, ST> CachedSql<DB, ST> {
    /// Adds a value.
    pub(crate) fn bind<T, V>(mut self, value: V) -> Self
    where
        T: SqlType + TypedExpressionType,
        V: AsExpression<T>,
        V::Expression: QueryFragment<DB> + 'static,
    {
        self.values.push(Box::new(value.as_expression()));
        self
    }
}

impl<DB: Backend, ST> QueryFragment<DB> for CachedSql<DB, ST> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let mut rest = &*self.text;
        while let Some((before, after)) = rest.split_once('$') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (number, after) = after.split_at(end);
            let number = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let value = number.and_then(|index| self.values.get(index));
            let value = value.ok_or_else(|| Error::QueryBuilderError("no such value".into()))?;
            out.push_sql(before);
            value.walk_ast(out.reborrow())?;
            rest = after;
        }
        out.push_sql(rest);
        Ok(())
    }
}

/// By its text.
impl<DB: Backend, ST> QueryId for CachedSql<DB, ST> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Backend, ST> Query for CachedSql<DB, ST> {
    type SqlType = ST;
}

impl<DB: Backend, ST, C> RunQueryDsl<C> for CachedSql<DB, ST> {}

impl<DB: Backend, ST: TypedExpressionType> Expression for CachedSql<DB, ST> {
    type SqlType = ST;
}

impl<DB: Backend, ST: TypedExpressionType, QS> SelectableExpression<QS> for CachedSql<DB, ST> {}

impl<DB: Backend, ST: TypedExpressionType, QS> AppearsOnTable<QS> for CachedSql<DB, ST> {}

impl<DB: Backend, ST, G> ValidGrouping<G> for CachedSql<DB, ST> {
    type IsAggregate = is_aggregate::Never;
}
