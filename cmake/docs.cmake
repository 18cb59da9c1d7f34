# SPDX-License-Identifier: MIT
# The target lgm_docs: the interface's reference, from the comments in the headers, in build/<preset>/docs/html.

find_package(Doxygen QUIET)
if(NOT DOXYGEN_FOUND)
  return()
endif()

set(DOXYGEN_PROJECT_NAME lgm)
set(DOXYGEN_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/docs)
set(DOXYGEN_GENERATE_LATEX NO)
set(DOXYGEN_HAVE_DOT NO)
set(DOXYGEN_QUIET YES)
set(DOXYGEN_WARN_AS_ERROR FAIL_ON_WARNINGS)
set(DOXYGEN_WARN_IF_UNDOCUMENTED NO)
set(DOXYGEN_WARN_IF_INCOMPLETE_DOC NO)
set(DOXYGEN_EXTRACT_ALL YES)
set(DOXYGEN_JAVADOC_AUTOBRIEF YES)
set(DOXYGEN_SORT_MEMBER_DOCS NO)
set(DOXYGEN_STRIP_FROM_PATH ${PROJECT_SOURCE_DIR}/include)
set(DOXYGEN_FULL_PATH_NAMES YES)
set(DOXYGEN_EXTENSION_MAPPING cuh=C++)
set(doxygen_filter "awk -f ${PROJECT_SOURCE_DIR}/cmake/doxygen-filter.awk")
set(DOXYGEN_FILTER_PATTERNS "*.hpp=${doxygen_filter}" "*.cuh=${doxygen_filter}")
set(DOXYGEN_USE_MDFILE_AS_MAINPAGE README.md)
set(DOXYGEN_IMAGE_PATH ${PROJECT_SOURCE_DIR})
set(DOXYGEN_MACRO_EXPANSION YES)
set(DOXYGEN_EXPAND_ONLY_PREDEF YES)
set(DOXYGEN_PREDEFINED LGM_HD=)
set(DOXYGEN_EXCLUDE_SYMBOLS lgm::detail* lgm::host)

file(GLOB lgm_public_headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/lgm/*.hpp
     ${PROJECT_SOURCE_DIR}/include/lgm/*.cuh)
doxygen_add_docs(lgm_docs README.md CHANGELOG.md ${lgm_public_headers} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                 COMMENT "The interface's reference, in ${DOXYGEN_OUTPUT_DIRECTORY}/html")
