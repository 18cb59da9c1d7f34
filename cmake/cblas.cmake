# SPDX-License-Identifier: MIT
# Any CBLAS will do; this is the one that Debian's libopenblas-dev brings.
find_path(LGM_CBLAS_INCLUDE cblas.h PATH_SUFFIXES openblas)
find_library(LGM_CBLAS_LIBRARY NAMES openblas cblas)
mark_as_advanced(LGM_CBLAS_INCLUDE LGM_CBLAS_LIBRARY)
