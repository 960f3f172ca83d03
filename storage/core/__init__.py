"""What is true of every engine: queues, fairness, life of databases, the journal's tail."""
