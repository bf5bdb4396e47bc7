"""What tests share: tiny models, tasks, studies, policies; the program run in this process; stand-ins."""
