from chassis.jobs.job import Job


class SendWelcome(Job):
    name = "send_welcome"

    user_id: int
