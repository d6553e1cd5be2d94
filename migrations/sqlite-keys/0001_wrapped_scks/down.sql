drop table wrapped_scks;
