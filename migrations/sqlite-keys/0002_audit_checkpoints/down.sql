drop table audit_checkpoints;
