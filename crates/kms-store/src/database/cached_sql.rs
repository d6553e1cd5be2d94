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
///
/// A connection finds the prepared statement by the text. Where a type `Id` stands for the text
/// (`#[derive(QueryId)]`), and for that of every other part, it finds it without building the text.
pub(crate) struct CachedSql<DB: Backend, ST, Id = ByText> {
    text: Cow<'static, str>,
    values: Vec<Box<dyn QueryFragment<DB>>>,
    types: PhantomData<(ST, Id)>,
}

/// Nothing but the text says which statement it is.
pub(crate) struct ByText;

impl QueryId for ByText {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
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
    identified_sql(text)
}

/// Like [`cached_sql`], of the text for which the type `Id` stands.
pub(crate) fn identified_sql<DB: Backend, ST, Id>(
    text: impl Into<Cow<'static, str>>,
) -> CachedSql<DB, ST, Id> {
    CachedSql { text: text.into(), values: Vec::new(), types: PhantomData }
}

impl<DB: Backend, ST, Id> CachedSql<DB, ST, Id> {
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

impl<DB: Backend, ST, Id> QueryFragment<DB> for CachedSql<DB, ST, Id> {
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

impl<DB: Backend, ST, Id: QueryId> QueryId for CachedSql<DB, ST, Id> {
    type QueryId = Id::QueryId;

    const HAS_STATIC_QUERY_ID: bool = Id::HAS_STATIC_QUERY_ID;
}

impl<DB: Backend, ST, Id> Query for CachedSql<DB, ST, Id> {
    type SqlType = ST;
}

impl<DB: Backend, ST, Id, C> RunQueryDsl<C> for CachedSql<DB, ST, Id> {}

impl<DB: Backend, ST: TypedExpressionType, Id> Expression for CachedSql<DB, ST, Id> {
    type SqlType = ST;
}

impl<DB: Backend, ST: TypedExpressionType, Id, QS> SelectableExpression<QS>
    for CachedSql<DB, ST, Id>
{
}

impl<DB: Backend, ST: TypedExpressionType, Id, QS> AppearsOnTable<QS> for CachedSql<DB, ST, Id> {}

impl<DB: Backend, ST, Id, G> ValidGrouping<G> for CachedSql<DB, ST, Id> {
    type IsAggregate = is_aggregate::Never;
}
