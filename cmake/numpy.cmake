# SPDX-License-Identifier: MIT
# LGM_NUMPY_PYTHON: a Python with NumPy, for the tests that load a library into one. Not found: an error where the environment
# says LGM_TEST_REQUIRES_NUMPY.
foreach(python IN ITEMS python3 /usr/bin/python3)
  if(NOT LGM_NUMPY_PYTHON)
    execute_process(COMMAND ${python} -c "import numpy" RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    if(NOT failed)
      set(LGM_NUMPY_PYTHON ${python} CACHE STRING "A Python with NumPy")
      mark_as_advanced(LGM_NUMPY_PYTHON)
    endif()
  endif()
endforeach()
if(NOT LGM_NUMPY_PYTHON AND DEFINED ENV{LGM_TEST_REQUIRES_NUMPY})
  message(FATAL_ERROR "There is no python3 with NumPy (Debian: python3-numpy)")
endif()
