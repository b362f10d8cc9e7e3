"""What hashret is stands in setup.cfg. HASHRET_CPU=1 has it installed for a machine without a GPU.

It then requires faiss-cpu in the place of faiss-gpu, which brings a gigabyte of CUDA's libraries.
"""

import configparser
import os

from setuptools import setup

options = {}
if os.environ.get("HASHRET_CPU", "0") != "0":
    config = configparser.ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"].split("\n")
    [faiss] = [line.partition(";")[0] for line in lines if line.startswith("faiss-cpu")]
    options["install_requires"] = [line for line in lines if line and not line.startswith("faiss-")] + [faiss]
setup(**options)
