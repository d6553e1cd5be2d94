drop table owner;
