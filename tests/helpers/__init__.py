"""What several folders of tests share: oracles, workers that run in processes of their own, small inputs."""
