"""Where the time goes: ``with kg.profiler.profile() as p: …``, then ``print(p)``.

The names are those of ``torch.profiler``. What is recorded is told by ``watch.py``; ``flops.py`` counts
operations; ``averages.py`` adds events up and makes tables; ``flame.py`` draws them.
"""

from kilograd.profiler.averages import EventAverages, EventList, ModuleTimes
from kilograd.profiler.events import Event
from kilograd.profiler.profiling import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    tensorboard_trace_handler,
)

__all__ = [
    "Event",
    "EventAverages",
    "EventList",
    "ModuleTimes",
    "ProfilerAction",
    "ProfilerActivity",
    "profile",
    "record_function",
    "schedule",
    "tensorboard_trace_handler",
]
