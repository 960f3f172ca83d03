"""The parts that databases have in transactions: who may go where, when, and for how long."""
