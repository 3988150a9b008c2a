"""What runs Tator for a team: compose, systemd and KEDA files, and checks of them that need no container engine."""
