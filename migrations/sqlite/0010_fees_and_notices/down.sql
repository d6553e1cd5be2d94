drop index spends_of_an_account;
alter table spends drop column fee;
