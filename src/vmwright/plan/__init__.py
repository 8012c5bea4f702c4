"""The plan: a pure function from (spec, facts) to ordered actions. No I/O at all."""
