import sys
from pathlib import Path

sys.path.insert(0, str(next(p for p in Path(__file__).resolve().parents if (p / "tools" / "sessions.py").is_file())))

from tools.sessions import register

register("downscaling/corrdiff", "corrdiff", rare_peers=["nvidia-physicsnemo"])
