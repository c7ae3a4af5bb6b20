"""python -m explainers.undesirable: the metric over a folder."""
import sys

from explainers.undesirable.metric import main

sys.exit(main())
