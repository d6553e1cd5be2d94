drop table unreferenced_scks;
