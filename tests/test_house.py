import sys
import mser
def test_a(): print([k for k,v in sys.modules.items() if 'work/main' in str(getattr(v,'__file__',''))]); assert 0
