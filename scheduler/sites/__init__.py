"""Sites: containers that start when somebody asks for them, sleep when nobody does, and wake at the next request."""
