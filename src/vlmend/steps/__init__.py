"""Steps: each file turns a data set into another and says why each row was kept, changed or dropped."""
