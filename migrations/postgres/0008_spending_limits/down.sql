drop table spending_limits;
drop table spends;
