"""The fleet of fake application services: registrations, the HTTP endpoint, scripts and faults."""
