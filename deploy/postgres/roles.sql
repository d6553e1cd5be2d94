-- Makes the roles and the database of the accounts. It can be run again, and then sets passwords
-- again. Run by psql as a superuser; SECRETS is the folder with the passwords.
--
-- kms_owner owns the schema, and `kms-server migrate` connects as it; it gives kms, the role of the
-- servers, its privileges on each table. kms_backup only reads.

\set ON_ERROR_STOP on
\set owner `cat "$SECRETS/postgres-kms_owner"`
\set server `cat "$SECRETS/postgres-kms"`
\set backup `cat "$SECRETS/postgres-kms_backup"`

select format('create role %I', name)
from unnest(array['kms_owner', 'kms', 'kms_backup']) name
where not exists (select from pg_roles where rolname = name)
\gexec
-- Statements with passwords stay out of the server's log.
set log_min_error_statement = panic;
set log_statement = none;
alter role kms_owner login password :'owner';
alter role kms login password :'server';
alter role kms_backup login password :'backup';
grant pg_read_all_data to kms_backup;

select 'create database kms owner kms_owner'
where not exists (select from pg_database where datname = 'kms')
\gexec
revoke all on database kms from public;
grant connect on database kms to kms, kms_backup;

\connect kms
revoke create on schema public from public;
grant create on schema public to kms_owner;
