-- Signed notes of where the audit's chain ended (FORMAT.md, "Audit checkpoint").
create table audit_checkpoints (
    id integer primary key autoincrement,
    line text not null
);
