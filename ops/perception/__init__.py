"""Networks that look at pictures: loaded once a process, one thread each."""
