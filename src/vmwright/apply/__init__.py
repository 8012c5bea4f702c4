"""Apply: walks a plan with bounded parallelism, journals it, undoes what a failed action half made."""
