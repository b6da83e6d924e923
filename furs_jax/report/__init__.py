"""What a run tells its user: tables and figures."""
